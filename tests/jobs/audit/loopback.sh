#!/bin/bash
# loopback.sh FOLDER [AUDIT ARGUMENTS...]: start a Ray head that asks for a token, and submit an audit to it, all on
# loopback in a namespace of its own (Ray would otherwise listen on the machine's address). FOLDER is short: sockets go
# below it. Prints the exit codes of submissions without a token and with a wrong one, and ends with that of the audit.
# Needs root, for the namespace.
set -euo pipefail
folder=$1; shift
if [ -z "${INSIDE:-}" ]; then
  INSIDE=1 exec unshare --net --pid --fork --mount-proc --kill-child "$0" "$folder" "$@"
fi
ip link set lo up
mkdir -p "$folder"
python=$(command -v python)
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/token"
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/wrong"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/token" RAY_USAGE_STATS_ENABLED=0 RAY_raylet_start_wait_time_s=120
"$python" -m ray.scripts.scripts start --head --port=26379 --dashboard-host=127.0.0.1 --node-ip-address=127.0.0.1 \
  --temp-dir="$folder/ray" --num-cpus=2 --object-store-memory=1000000000 --disable-usage-stats > "$folder/head.log" 2>&1
submit=("$python" -m jobs submit --address http://127.0.0.1:8265 --working-dir .)
for _ in $(seq 60); do
  code=0
  env -u RAY_AUTH_MODE -u RAY_AUTH_TOKEN_PATH HOME="$folder" "${submit[@]}" audit "$@" > "$folder/refused.log" 2>&1 \
    || code=$?
  [ "$code" = 1 ] || break  # 1: the dashboard does not answer yet
  sleep 1
done
echo "without a token: $code"
code=0; RAY_AUTH_TOKEN_PATH="$folder/wrong" "${submit[@]}" audit "$@" >> "$folder/refused.log" 2>&1 || code=$?
echo "with a wrong token: $code"
cat "$folder/refused.log" >&2
exec "${submit[@]}" audit "$@"
