#!/bin/bash
# loopback.sh FOLDER SHARDS [AUDIT ARGUMENTS...]: a Ray cluster that asks for a token, of a head without work and three nodes
# with labels (load, load, models), and an audit that is submitted to it, all on loopback in a namespace of its own (Ray
# would otherwise listen on the machine's address). FOLDER is short: sockets go below it. When the folder SHARDS has a file,
# the first node for loading is killed, whole. Prints the exit codes of submissions without a token and with a
# wrong one, and ends with that of the audit. Needs root, for the namespace.
set -euo pipefail
folder=$1 shards=$2; shift 2
if [ -z "${INSIDE:-}" ]; then
  INSIDE=1 exec unshare --net --pid --fork --mount-proc --kill-child "$0" "$folder" "$shards" "$@"
fi
ip link set lo up
mkdir -p "$folder"
python=$(command -v python)
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/token"
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/wrong"
unset RAY_AUTH_TOKEN  # of an embedded Ray, and it would come before the files
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/token" RAY_USAGE_STATS_ENABLED=0 RAY_raylet_start_wait_time_s=120
ray=("$python" -m ray.scripts.scripts)
"${ray[@]}" start --head --port=26379 --dashboard-host=127.0.0.1 --node-ip-address=127.0.0.1 --temp-dir="$folder/ray" \
  --num-cpus=0 --object-store-memory=200000000 --disable-usage-stats > "$folder/head.log" 2>&1
first="" number=0
for pool in load load models; do
  number=$((number + 1))
  before=" $(pgrep -x raylet | tr '\n' ' ')"
  # A folder of its own, as a machine has: in a common one every node that needs the code unpacks it again, and removes
  # first what the driver is reading.
  "${ray[@]}" start --address=127.0.0.1:26379 --num-cpus=2 --object-store-memory=400000000 --temp-dir="$folder/$number" \
    --labels="line-audit/pool=$pool" >> "$folder/nodes.log" 2>&1
  for pid in $(pgrep -x raylet); do
    case $before in *" $pid "*) ;; *) [ -n "$first" ] || first=$pid ;; esac
  done
done
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
"${submit[@]}" audit "$@" > "$folder/audit.log" 2>&1 & audit=$!
while kill -0 "$audit" 2> /dev/null; do
  if compgen -G "$shards/shard-*.parquet" > /dev/null; then
    workers=$(pgrep -P "$first" | tr '\n' ' ')
    kill -9 "$first" $workers 2> /dev/null || true
    echo "killed a node for loading, with $(wc -w <<< "$workers") processes"
    break
  fi
  sleep 0.2
done
code=0; wait "$audit" || code=$?
cat "$folder/audit.log" >&2
exit "$code"
