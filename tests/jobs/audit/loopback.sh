#!/bin/bash
# loopback.sh FOLDER [AUDIT ARGUMENTS...]: start a Ray head and submit an audit to it, all on loopback in a namespace of
# its own (Ray would otherwise listen on the machine's address). FOLDER is short: sockets go below it. Prints the driver's
# own exit code as "driver exit code N". Needs root, for the namespace.
set -euo pipefail
folder=$1; shift
if [ -z "${INSIDE:-}" ]; then
  INSIDE=1 exec unshare --net --pid --fork --mount-proc --kill-child "$0" "$folder" "$@"
fi
ip link set lo up
mkdir -p "$folder"
python=$(command -v python)
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/token" RAY_USAGE_STATS_ENABLED=0
"$python" -m ray.scripts.scripts start --head --port=26379 --dashboard-host=127.0.0.1 --node-ip-address=127.0.0.1 \
  --temp-dir="$folder/ray" --num-cpus=2 --object-store-memory=1000000000 --disable-usage-stats > "$folder/head.log" 2>&1
for _ in $(seq 60); do
  "$python" -m ray.scripts.scripts job list --address http://127.0.0.1:8265 > "$folder/list.log" 2>&1 && break
  sleep 1
done
submitted=0
"$python" -m ray.scripts.scripts job submit --address http://127.0.0.1:8265 --submission-id audit --working-dir . -- \
  "$python" -m jobs audit "$@" || submitted=$?
"$python" - <<'PYTHON'
from ray.job_submission import JobSubmissionClient

info = JobSubmissionClient("http://127.0.0.1:8265").get_job_info("audit")
print("driver exit code", info.driver_exit_code)
PYTHON
exit "$submitted"
