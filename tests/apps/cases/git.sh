# timeout: 120
# git: init, commit, branch, merge, log, gc, clone, fsck.
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@x GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@x
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
mkdir /tmp/r && cd /tmp/r && git init -q -b main
for i in $(seq 1 15); do mkdir -p "d$((i % 4))"; seq 1 $((i * 50)) >"d$((i % 4))/f$i"; git add -A; git commit -q -m "commit $i"; done
git log --oneline | sed -n '1p;$p'; git rev-parse HEAD
git checkout -q -b side HEAD~5 && echo side >side && git add side && git commit -q -m side
git checkout -q main && git merge -q -m merge side && git log --oneline | wc -l
git gc -q && git count-objects -v | grep -E '^(count|packs):' && git fsck 2>/dev/null && echo fsck
git clone -q /tmp/r /tmp/c && git -C /tmp/c rev-parse HEAD && git -C /tmp/c status --short | wc -l
git grep -c 749 | sort; git diff --stat HEAD~2 | tail -n 1; git archive HEAD | tar t | wc -l
git stash list; echo change >>side; git diff --shortstat; git stash -q; git status --short; git blame -s side | cut -c1-8
