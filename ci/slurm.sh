#!/usr/bin/env bash
# ci/slurm.sh COMMAND…: runs a command beside a real Slurm, which is gone afterwards: a controller, four nodes and an
# accounting database, all on 127.0.0.1. For instance `ci/slurm.sh ouikit run malleability --scale extended`, or
# `ci/slurm.sh bash` to look around with sinfo, squeue and sacct.
# It needs root on Debian or Ubuntu, and installs what is missing there. Elsewhere the command is not run, loudly.
#
# Nodes n1 to n4 are daemons on this one machine: what is allocated is real, what runs on a node runs here. Nothing is
# kept; configuration, logs and data are in one temporary folder.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: ci/slurm.sh COMMAND…" >&2; exit 2; }
PATH=$PATH:/usr/sbin:/sbin

skip() { echo "!!! SKIPPED: $1; this did NOT run: ${command[*]} !!!" >&2; exit 0; }
command=("$@")
packages=(slurm-wlm slurmdbd munge mariadb-server)
[ "$(id -u)" = 0 ] || skip "Slurm on loopback needs root"
if ! command -v slurmctld slurmd slurmdbd munged mariadbd > /dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "${packages[@]}"; } \
        > /dev/null 2>&1 || skip "${packages[*]} cannot be installed here"
fi

at=$(mktemp -d /tmp/ouikit-slurm-XXXXXX)
# Six ports in a row that nobody listens to: controller, accounting and the nodes.
port=$(python3 - << 'PYTHON'
import random, socket
def free(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0
print(next(p for p in iter(lambda: random.randrange(17000, 30000), 0) if all(map(free, range(p, p + 6)))))
PYTHON
)

# Waits up to 10 seconds for a command to fail, which says that something is gone.
until_false() { for _ in $(seq 200); do "$@" > /dev/null 2>&1 || return 0; sleep 0.05; done; }
some_job() { [ -n "$(timeout 5 squeue -h)" ]; }
down() {
    trap '' INT TERM
    if [ -n "${pids[slurmctld]:-}" ]; then
        timeout 10 scancel --quiet --user=root || true
        until_false some_job
    fi
    # Nodes first, the database last: each writes to those that end after it.
    for names in "n1 n2 n3 n4" slurmctld slurmdbd munged mariadbd; do
        for name in $names; do [ -z "${pids[$name]:-}" ] || kill "${pids[$name]}" 2> /dev/null || true; done
        for name in $names; do [ -z "${pids[$name]:-}" ] || until_false kill -0 "${pids[$name]}"; done
    done
    # What is left was given this configuration: daemons that did not listen, steps of jobs.
    export -n SLURM_CONF
    left=$(grep -lsz "^SLURM_CONF=$at/" /proc/[0-9]*/environ | cut -d/ -f3 | grep -vx "$$") || true
    [ -z "$left" ] || kill -KILL $left 2> /dev/null || true
    rm -rf "$at"
}
declare -A pids
trap down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

export SLURM_CONF=$at/slurm.conf MYSQL_UNIX_PORT=$at/mariadb.sock
cat > "$SLURM_CONF" << CONF
ClusterName=loopback
SlurmctldHost=localhost
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$at/munge.sock
# Without an accounting database Slurm resizes a job once and never again.
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$((port + 1))
AccountingStoragePass=$at/munge.sock
SchedulerParameters=permit_job_expansion,sched_interval=1
SchedulerType=sched/builtin
SelectType=select/linear
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=2
MessageTimeout=10
SlurmctldPidFile=$at/slurmctld.pid
SlurmdPidFile=$at/%n.pid
StateSaveLocation=$at/state
SlurmdSpoolDir=$at/%n
NodeName=n[1-4] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[$((port + 2))-$((port + 5))] CPUs=1 RealMemory=100
PartitionName=all Nodes=ALL Default=YES MaxTime=60
CONF
cat > "$at/slurmdbd.conf" << CONF
AuthType=auth/munge
AuthInfo=socket=$at/munge.sock
DbdHost=localhost
DbdPort=$((port + 1))
SlurmUser=root
PidFile=$at/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
CONF
chmod 600 "$at/slurmdbd.conf"
mkdir "$at"/{state,n1,n2,n3,n4}
dd if=/dev/urandom of="$at/munge.key" bs=128 count=1 status=none
chmod 400 "$at/munge.key"

start() { # name, command: in the foreground of its own, so that its end can be awaited
    "${@:2}" > "$at/$1.log" 2>&1 &
    pids[$1]=$!
}
until_true() { # what, command: waits for it, or says what the log of the daemon says
    for _ in $(seq 300); do
        timeout 5 "${@:2}" > /dev/null 2>&1 && return
        sleep 0.1
    done
    echo "$1 did not come up within half a minute:" >&2
    tail -n 20 "$at/$1.log" >&2
    exit 1
}
four_idle() { [ "$(timeout 5 sinfo -h -N -o %T | grep -cx idle)" = 4 ]; }

start munged munged --foreground --force --key-file="$at/munge.key" --socket="$at/munge.sock" \
    --pid-file="$at/munged.pid" --log-file="$at/munged.log" --seed-file="$at/munged.seed"
mariadb-install-db --no-defaults --user=root --datadir="$at/mariadb" --skip-test-db > "$at/mariadbd.log" 2>&1
start mariadbd mariadbd --no-defaults --user=root --datadir="$at/mariadb" --socket="$MYSQL_UNIX_PORT" --skip-networking \
    --pid-file="$at/mariadbd.pid"
until_true mariadbd mariadb-admin --socket="$MYSQL_UNIX_PORT" ping
start slurmdbd slurmdbd -D
until_true slurmdbd sacctmgr -n show cluster
timeout 20 sacctmgr -i add cluster loopback > /dev/null
start slurmctld slurmctld -D -c
for node in n1 n2 n3 n4; do start "$node" slurmd -D -N "$node"; done
export -f four_idle
until_true slurmctld bash -c four_idle

"${command[@]}"
