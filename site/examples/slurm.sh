#!/usr/bin/env bash
# Grade an assignment on several nodes:
#   sbatch slurm.sh 01-pruning "$HOME/course"
#SBATCH --job-name=fourbit-grade
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=02:00:00
#SBATCH --output=fourbit-grade-%j.log
set -euo pipefail
assignment=$1 course=$2

# A clone with `python3 fourbit/bootstrap.py grade cluster`, on a disk that
# every node sees.
source "${FOURBIT:-$HOME/fourbit}/.venv/bin/activate"

# What the job's programs share, in a folder that only you can read: the
# scheduler's address, and a key. Whoever reaches a scheduler without a key can
# run programs as you, and other users of a cluster reach its nodes.
shared=$(mktemp -d "$HOME/.fourbit-grade-XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$shared"' EXIT
openssl req -x509 -newkey rsa:2048 -nodes -days 7 -subj /CN=fourbit \
    -keyout "$shared/key.pem" -out "$shared/cert.pem" 2>/dev/null
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$shared/cert.pem"
for role in SCHEDULER WORKER CLIENT; do
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$shared/cert.pem"
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$shared/key.pem"
done

dask scheduler --protocol tls --port 0 --no-dashboard \
    --scheduler-file "$shared/scheduler.json" &
until [ -s "$shared/scheduler.json" ]; do
    kill -0 $!  # ends the job when the scheduler did
    sleep 0.2
done

# One process for each core, one thread each.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" dask worker \
    --scheduler-file "$shared/scheduler.json" \
    --nworkers "$SLURM_CPUS_PER_TASK" --nthreads 1 \
    --memory-limit 0 --no-dashboard \
    --local-directory "${TMPDIR:-/tmp}" --death-timeout 120 &

fourbit grade "$assignment" --course "$course" \
    --cluster "$shared/scheduler.json"
