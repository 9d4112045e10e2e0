#!/usr/bin/env bash
# Slurm and munge from the distribution's packages (Debian, Ubuntu), for the tests of the Slurm
# executor. Where they cannot be installed it says so and ends well: those tests are then skipped.
set -uo pipefail

missing() {
  local program
  for program in munged slurmctld slurmd sbatch; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || return 0
  done
  return 1
}

unavailable() {
  echo "install_slurm: $1; the Slurm tests will be skipped." >&2
  exit 0
}

missing || exit 0
command -v apt-get >/dev/null || unavailable "Slurm is missing and there is no apt-get"
[[ "$(id -u)" == 0 ]] || unavailable "Slurm is missing and installing it needs root"

# The tests start daemons of their own; those of the packages must not start on installation.
policy=/usr/sbin/policy-rc.d
if [[ ! -e "$policy" ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi

log="$(mktemp)"
apt() {
  DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -q -y -o DPkg::Lock::Timeout=120 "$@" \
    </dev/null >>"$log" 2>&1
}
apt update || echo "install_slurm: apt-get update failed, trying with the lists at hand" >&2
apt install --no-install-recommends slurm-wlm munge || tail -n 5 "$log" >&2
rm -f "$log"
missing && unavailable "apt-get could not install slurm-wlm and munge"
echo "install_slurm: installed $(PATH="$PATH:/usr/sbin:/sbin" slurmctld -V)"
