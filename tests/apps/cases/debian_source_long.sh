# timeout: 300
# A real Debian source package: configure, make, make check.
set -e
cp -a /opt/src/hello /tmp/hello && cd /tmp/hello
./configure >/tmp/configure.log 2>&1 && tail -n 1 /tmp/configure.log
make -j2 >/tmp/make.log 2>&1 || { tail /tmp/make.log >&2; exit 1; }
./hello && ./hello --version | head -n 1
make check >/tmp/check.log 2>&1 || { tail /tmp/check.log; exit 1; }
grep -E '^# (TOTAL|PASS|FAIL|ERROR):' /tmp/check.log | sort -u
make install DESTDIR=/tmp/dest >/dev/null 2>&1 && find /tmp/dest -type f | sort | head -n 5
