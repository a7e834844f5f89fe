# Sourced: a private Slurm on this host, as root and without systemd. Own munge key and socket, own ports, own state under $state.
# Several slurmd on one host are nodes n1, n2, …; each has its own /dev/shm and TmpFS, since the shared segments of two "nodes" would collide.
# Everything that is started is stopped by its recorded pid.

slurm_missing() { # prints why the test cannot run, or nothing
  local tool
  [ "$(id -u)" = 0 ] || { echo "needs root to start slurmd and munged"; return; }
  for tool in slurmctld slurmd sbatch scontrol scancel sinfo srun munged unshare; do
    command -v $tool >/dev/null || { echo "$tool is not installed"; return; }
  done
  unshare --mount true 2>/dev/null || { echo "unshare --mount is not allowed here"; return; }
}

slurm_start() { # slurm_start STATE NODES CPUS_PER_NODE
  state=$1
  local nodes=$2 cpus=$3 host base i
  host=$(hostname -s)
  base=$((20000 + $$ % 20000)) # ports of this run
  mkdir -p "$state"/{log,ctld,munge}
  chmod 755 "$state" "$state/munge"
  (umask 077; dd if=/dev/urandom of="$state/munge.key" bs=64 count=1 status=none)
  munged --force --socket="$state/munge/socket" --key-file="$state/munge.key" --pid-file="$state/munge/munged.pid" \
    --log-file="$state/log/munged.log" --seed-file="$state/munge/seed" || return 1
  {
    cat <<CONF
ClusterName=plumbtest
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=$base
SlurmctldPidFile=$state/slurmctld.pid
SlurmctldLogFile=$state/log/slurmctld.log
StateSaveLocation=$state/ctld
SlurmdPidFile=$state/slurmd-%n.pid
SlurmdLogFile=$state/log/slurmd-%n.log
SlurmdSpoolDir=$state/spool-%n
SlurmdParameters=config_overrides
TmpFS=$state/tmp-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=pmix
MpiParams=ports=$((base + 100))-$((base + 400))
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
KillWait=5
SlurmdTimeout=10
MinJobAge=300
JobRequeue=1
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
CONF
    for i in $(seq 1 "$nodes"); do
      mkdir -p "$state/spool-n$i" "$state/tmp-n$i"
      echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((base + i)) CPUs=$cpus RealMemory=1000 State=UNKNOWN"
    done
    echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
  } >"$state/slurm.conf"
  export SLURM_CONF=$state/slurm.conf
  slurmctld || return 1
  for i in $(seq 1 "$nodes"); do
    unshare --mount bash -c "mount -t tmpfs -o size=512m tmpfs /dev/shm; exec slurmd -N n$i" || return 1
  done
  for i in $(seq 1 200); do
    [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | wc -l)" = "$nodes" ] && return 0
    sleep 0.1
  done
  sinfo -R >&2
  tail -n 5 "$state"/log/*.log >&2
  return 1
}

slurm_stop() {
  local pids p i left
  [ -n "${state:-}" ] || return 0
  for p in $(squeue -h -o %i 2>/dev/null); do timeout 5 scancel "$p"; done
  sleep 0.5
  pids=$(cat "$state"/slurmd-*.pid "$state/slurmctld.pid" "$state/munge/munged.pid" 2>/dev/null)
  for p in $pids; do kill "$p" 2>/dev/null; done
  for i in $(seq 1 50); do
    left=
    for p in $pids; do kill -0 "$p" 2>/dev/null && left="$left $p"; done
    [ -z "$left" ] && break
    sleep 0.1
  done
  for p in $left; do kill -9 "$p" 2>/dev/null; done
  return 0
}
