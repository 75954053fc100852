# status: 4
# shell: /bin/sh
# root: /opt/busybox
# A root of nothing but a static busybox.
ls / | sort; echo $((1 + 1)) | sed s/2/two/; uname -s; id -u
mkdir -p /tmp/d/e; for i in 1 2 3 4 5 6 7 8 9; do echo $i >/tmp/d/e/$i; done; find /tmp/d -type f | sort | xargs cat | awk '{ s += $1 } END { print s }'
tar cf - -C /tmp d | tar tf - | sort; cd /tmp/d; md5sum e/* | md5sum; seq 1 1000 | sort -rn | head -n 1
(sleep 30 & kill $!; wait $!; echo "wait $?"); trap 'echo term' TERM; kill -TERM $$; vi --help >/dev/null 2>&1; echo $?
ps | grep -c busybox >/dev/null; cat /proc/self/status | grep -c '^Pid'; dd if=/dev/zero bs=4k count=100 2>/dev/null | wc -c; exit 4
