# timeout: 120
# coreutils over a tree of thousands of files.
set -e
mkdir /tmp/t && cd /tmp/t
for d in $(seq 1 40); do mkdir -p "a/$d"; for f in $(seq 1 75); do echo "$d $f" >"a/$d/f$f"; done; done
find a -type f | wc -l
cp -a a b && diff -r a b && echo same
mv b/1 b/moved && ls b | sort -V | head -n 3
ln a/1/f1 hard && ln -s a/1/f1 soft && stat -c '%h %F' hard soft && readlink soft
chmod -R go-rwx b && stat -c %a b/2/f2 && chown -R 1000:1000 b && stat -c %u:%g b/2/f2
cat a/*/f* | sort -n -k2 -k1 | sha256sum
find a -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
seq 1 100000 | shuf --random-source=<(yes) | sort -n | md5sum
split -l 1000 <(seq 1 10000) part- && ls part-* | wc -l && cat part-* | tail -n 1
head -c 1000000 /dev/zero | tr '\0' x | wc -c
paste <(seq 3) <(seq 4 6) | cut -f2 | tac | nl
dd if=/dev/zero of=big bs=64k count=160 status=none && stat -c %s big && truncate -s 5 big && wc -c <big
du -s --apparent-size a/1 | cut -f2
touch -d '2020-02-02 02:02:02 UTC' dated && date -u -r dated
printf 'x\n' | tee one two >/dev/null && cmp one two && echo cmp
comm -12 <(seq 1 2 9) <(seq 3 9) | paste -sd,
timeout 0.2 sleep 5 || echo "timeout $?"
env -i A=b env; nproc >/dev/null; test -x /bin/ls && [ ! -e nothing ] && expr 6 \* 7
mktemp -d /tmp/xxXXXXXX >/dev/null; install -D -m 640 one deep/er/file && stat -c %a deep/er/file
rm -r a b && ls -A | wc -l
