#!/usr/bin/env bash
# install_cluster.sh: install the Debian packages that the cluster tests need: a Slurm for one machine, and kubectl. Run as root.
# The daemons of the packages are not needed; the tests start their own.
set -euo pipefail
[[ $EUID == 0 ]] || { echo "install_cluster.sh: run it as root" >&2; exit 2; }
# Without this file the packages would start daemons, which fail without a configuration.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
packages=(slurm-wlm munge)
command -v kubectl >/dev/null || packages+=(kubernetes-client)
apt-get install -q -y --no-install-recommends "${packages[@]}"
