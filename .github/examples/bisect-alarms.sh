#!/usr/bin/env bash
# bisect-alarms.sh SUITE [FOLDER [BRANCH]]: measures the checked-out commit, adds it to the history in FOLDER, and finds
# the first bad commit of each alarm. Exit code 1: a first bad commit was found. 4: an alarm is one of several commits.
set -uo pipefail
suite=$1 folder=${2:-.} branch=${3:-main} budget=${BUDGET:-5m}

# A failed case must not end the job: the other cases are saved.
code=0
vbench run "$suite" --out results/nightly || code=$?
case $code in 0 | 3) ;; *) exit "$code" ;; esac
vbench baseline save results/nightly --branch "$branch" --folder "$folder" || exit
vbench history --branch "$branch" --folder "$folder" --html alarms.html --atom alarms.xml || exit
vbench history --branch "$branch" --folder "$folder" --json > alarms.json || exit

# One line per alarm: the metric that moved most surely, and half of its change as the limit; exact ones have none.
alarms=$(python3 -c '
import json
for alarm in json.load(open("alarms.json"))["alarms"]:
    moved = max(alarm["moved"], key=lambda each: (each["is_exact"], abs(each["change"] or 0)))
    limit = "0" if moved["is_exact"] else "{:.1f}%".format(max(3.0, 50 * abs(moved["change"] or 0)))
    print(moved["metric"], moved["case_id"], alarm["last_before"], alarm["first"], limit, sep="\t")') || exit
found=0
while IFS=$'\t' read -r metric case good bad limit; do
  if [ -z "$metric" ]; then continue; fi
  # Judgements are kept in --out, so an alarm that was bisected in an earlier night takes no time.
  result=0
  vbench bisect "$metric" "$case" "$good" "$bad" --suite "$suite" --limit "$limit" --budget "$budget" \
    --out "results/bisect/${bad:0:12}-$case" < /dev/null > bisect.txt || result=$?
  cat bisect.txt
  case $result in
    0) echo "::notice title=vbench::$metric: the alarm at $bad was not confirmed" ;;
    1) echo "::error title=vbench::$metric: $(head -n 1 bisect.txt)"; found=1 ;;
    4) echo "::warning title=vbench::$metric: one of several commits up to $bad"; [ "$found" = 1 ] || found=4 ;;
    *) echo "::warning title=vbench::$metric: the bisection of $good..$bad ended with exit code $result" ;;
  esac
done <<< "$alarms"
exit "$found"
