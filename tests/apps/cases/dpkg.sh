# timeout: 120
# dpkg and apt-get with a local package.
set -e
dpkg -l | wc -l; dpkg -L coreutils | wc -l; dpkg -S /bin/ls
apt-get install -y --no-install-recommends /opt/moat-sample.deb >/tmp/log 2>&1 || { tail /tmp/log; exit 1; }
dpkg -s moat-sample | head -n 2; cat /usr/share/moat-sample/data /usr/share/moat-sample/state
dpkg --verify coreutils | wc -l
apt-get remove -y moat-sample >/tmp/log 2>&1 || { tail /tmp/log; exit 1; }
ls /usr/share/moat-sample 2>/dev/null; dpkg -l moat-sample | tail -n 1 | cut -c1-2
