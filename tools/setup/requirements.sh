# Sourced by quickstart and check: what both ask of the machine, and how they report.
# die MESSAGE ends the script with one line on stderr.
die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

require_machine() {
  [ "$(uname -s)" = Linux ] || die "needs Linux, this is $(uname -s)"
  [ "$(uname -m)" = x86_64 ] || die "needs an x86-64 machine, this is $(uname -m)"
  [ "$(id -u)" = 0 ] || die "needs root: it installs packages and makes namespaces (try: sudo $0)"
  local release major minor
  release=$(uname -r)
  IFS=. read -r major minor _ <<<"$release"
  minor=${minor%%[!0-9]*}
  if [ "$major" -lt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -lt 1 ]; }; then
    die "needs Linux 6.1 or newer (Debian 12's kernel), this is $release"
  fi
  [ -r /etc/debian_version ] || die "needs Debian 12: packages are installed with apt-get"
}

# elapsed START: "1m05s" since START, a value of $SECONDS.
elapsed() {
  local s=$((SECONDS - $1))
  if [ $s -ge 60 ]; then printf '%dm%02ds' $((s / 60)) $((s % 60)); else printf '%ds' $s; fi
}
