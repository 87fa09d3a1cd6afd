#!/usr/bin/env bash
# What `gptoss ask` is good for between pipes. Usage: bash docs/pipes.sh FILE-OF-QUESTIONS [MODEL]
set -euo pipefail
export GPTOSS_MODEL="${2:-nano}"
ask() { gptoss ask --temperature 0 "$@"; }

echo "== a file, summarised"
ask -n 300 "Summarise this:" -f "$1" </dev/null || [ $? -eq 4 ] # 4: -n cut it; what there was has been printed

echo "== the lines of a file, sorted into classes"
while IFS= read -r line; do # standard input is the file: ask must not read it
    printf '%s -> %s\n' "$line" "$(ask --no-save --choice sum,difference,other "$line" </dev/null)"
done <"$1"

echo "== the lines answered with one load of the model, and jq before and after it"
ask --batch <(jq -Rc '{id: input_line_number, prompt: .}' "$1") | jq -r '"\(.id): \(.answer)"'

echo "== a conversation that goes on"
id=$(ask --json "What is 12 + 30?" </dev/null | jq -r .session)
ask --session "$id" "What is 81 - 27?" </dev/null

echo "== every exit status: answered, failed, wrong usage, no such model, incomplete, interrupted, terminated, closed pipe"
status() { "$@" >/dev/null 2>&1 </dev/null && echo 0 || echo $?; }
status ask "What is 2 + 2?"
status ask -f "$1.missing"
status ask "" # an empty prompt
status ask -m ./no-such-model "Hi"
status ask -n 3 "What is 347 + 85?"
status timeout --preserve-status -s INT 2 gptoss ask -f <(sleep 9)
status timeout --preserve-status 2 gptoss ask -f <(sleep 9)
ask "What is 2 + 2?" </dev/null | true || echo "${PIPESTATUS[0]}"
