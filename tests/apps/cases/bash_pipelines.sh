# Pipelines, substitution, arrays, here documents, traps, exit codes.
set -o pipefail
seq 1 5000 | awk '{ s += $1 } END { print s }'
printf '%s\n' b a c a | sort | uniq -c | sort -rn | sed 's/^ *//'
diff <(seq 1 10) <(seq 2 11)
echo "diff says $?"
false | true; echo "pipefail ${PIPESTATUS[*]}"
cat <<END | tr a-z A-Z
here document $((6 * 7))
END
declare -A map=([one]=1 [two]=2); for k in $(printf '%s\n' "${!map[@]}" | sort); do echo "$k=${map[$k]}"; done
exec 5>/tmp/fd5; echo through five >&5; exec 5>&-; cat /tmp/fd5
(exit 37); echo "status $?"
(kill -TERM $BASHPID); echo "status $?"
trap 'echo trapped USR1' USR1; kill -USR1 $$; trap - USR1
(trap 'echo leaving' EXIT; exit 3); echo "status $?"
yes | head -n 100000 | wc -l
for i in $(seq 1 60); do /bin/true || echo failed; done; echo loop done
read -r -t 0.1 line < <(sleep 1); [ $? -gt 128 ] && echo timed out
coproc CAT { cat; }; echo to coproc >&"${CAT[1]}"; read -r back <&"${CAT[0]}"; echo "$back"; kill $CAT_PID; wait $CAT_PID 2>/dev/null
echo "umask $(umask) $(ulimit -n)"
mkfifo /tmp/p; (echo via fifo >/tmp/p) & cat /tmp/p; wait
/no/such/command 2>/dev/null; echo "status $?"
/etc/passwd 2>/dev/null; echo "status $?"
