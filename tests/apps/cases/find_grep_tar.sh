# timeout: 120
# find, grep -r, xargs -P, tar, gzip, xz, cpio-like copies.
set -e
cd /usr/lib/python3.11
find . -name '*.py' | sort | sha256sum
find . -type d -newermt 2000-01-01 | wc -l
grep -rlE 'class [A-Z]\w+\(Exception\)' --include='*.py' . | sort | head -n 20
grep -rc import json | sort
tar cf - --sort=name --mtime=@0 --owner=0 --group=0 asyncio json email | sha256sum
mkdir /tmp/x && tar cf - asyncio json email | tar xf - -C /tmp/x && diff -r asyncio /tmp/x/asyncio && echo equal
cd /tmp/x
tar czf a.tgz email && tar tzf a.tgz | wc -l && gzip -dc a.tgz | wc -c >/dev/null
tar cJf a.txz json && xz -t a.txz && echo xz
find . -name '*.py' -print0 | xargs -0 -P 4 -n 5 md5sum | sort | md5sum
find . -type f -size +8k -exec ls {} + | sort
find . -empty; find . -name '*.py' -delete; find . -type f | sort
seq 1 200 | xargs -P 8 -I{} sh -c 'echo {}' | sort -n | md5sum
