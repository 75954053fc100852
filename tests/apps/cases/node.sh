# status: 3
# timeout: 120
# node: worker threads, file streams, child processes, timers, crypto.
cat >/tmp/m.js <<'JS'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const fs = require('fs'), cp = require('child_process'), crypto = require('crypto'), { pipeline } = require('stream/promises');
if (!isMainThread) { let s = 0; for (let i = 0; i < 200000; i++) s += (i * workerData) % 7; parentPort.postMessage(s); return; }
(async () => {
  const sums = await Promise.all([1, 2, 3, 4].map(n => new Promise((ok, no) => { const w = new Worker(__filename, { workerData: n }); w.on('message', ok); w.on('error', no); })));
  console.log('workers', sums);
  fs.writeFileSync('/tmp/in', Buffer.alloc(3 << 20, 'node'));
  await pipeline(fs.createReadStream('/tmp/in'), require('zlib').createGzip(), fs.createWriteStream('/tmp/out.gz'));
  await pipeline(fs.createReadStream('/tmp/out.gz'), require('zlib').createGunzip(), fs.createWriteStream('/tmp/back'));
  console.log('hash', crypto.createHash('sha256').update(fs.readFileSync('/tmp/back')).digest('hex').slice(0, 16));
  console.log('child', cp.execFileSync('echo', ['from', 'child']).toString().trim());
  const c = cp.spawn('cat'); let got = ''; c.stdout.on('data', d => got += d); c.stdin.end('piped');
  console.log('exit', await new Promise(ok => c.on('close', ok)), got);
  await fs.promises.mkdir('/tmp/many'); await Promise.all([...Array(200).keys()].map(i => fs.promises.writeFile('/tmp/many/' + i, String(i))));
  console.log('files', (await fs.promises.readdir('/tmp/many')).length);
  const t = Date.now(); await new Promise(ok => setTimeout(ok, 50)); console.log('timer', Date.now() - t >= 49);
  process.exitCode = 3;
})();
JS
exec node /tmp/m.js
