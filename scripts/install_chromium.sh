#!/usr/bin/env bash
# Chromium and its driver from the distribution's packages (Debian, Ubuntu), for the tests of the
# leaderboard's page. Where they cannot be installed it says so and ends well: those tests are then
# skipped.
set -uo pipefail

missing() {
  ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null
}

unavailable() {
  echo "install_chromium: $1; the tests in a browser will be skipped." >&2
  exit 0
}

missing || exit 0
command -v apt-get >/dev/null || unavailable "Chromium is missing and there is no apt-get"
[[ "$(id -u)" == 0 ]] || unavailable "Chromium is missing and installing it needs root"

log="$(mktemp)"
apt() {
  DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -q -y -o DPkg::Lock::Timeout=120 "$@" \
    </dev/null >>"$log" 2>&1
}
apt update || echo "install_chromium: apt-get update failed, trying with the lists at hand" >&2
apt install --no-install-recommends chromium chromium-driver fonts-dejavu-core ||
  tail -n 5 "$log" >&2
rm -f "$log"
missing && unavailable "apt-get could not install chromium and chromium-driver"
echo "install_chromium: installed $(chromium --version)"
