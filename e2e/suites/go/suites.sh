#!/usr/bin/env bash
# Runs what other people's Go programs test of a Kubernetes, unmodified, against this OneX: controller-runtime's own tests, each
# package on an apiserver of its own, as envtest starts kube-apiserver; and our suite with the newest clients.
#
#   ONEX=target/release/onex e2e/suites/go/suites.sh [PACKAGE...]     # e.g. client cache webhook
#
# Needs Go and the registry of its modules. It takes a quarter of an hour the first time, so it is not a part of `make test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

version=v0.21.0 # of controller-runtime; the one in newest.mod with CONTROLLER_RUNTIME=v0.25.2
version=${CONTROLLER_RUNTIME:-$version}
onex=$(realpath "${ONEX:-../../../target/release/onex}")
packages=("$@")
[ ${#packages[@]} != 0 ] || packages=(builder cache client client/apiutil cluster controller controller/controllerutil envtest
  handler internal/recorder manager metrics/filters source webhook webhook/admission webhook/authentication ours)
export CGO_ENABLED=0 GOTOOLCHAIN=auto GOFLAGS=

work=$(mktemp -d)
server=
stop() { [ -z "$server" ] || { kill "$server" && wait "$server" || true; }; server=; }
trap 'stop; chmod -R u+w "$work"; rm -rf "$work"' EXIT

source=$(go mod download -json "sigs.k8s.io/controller-runtime@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
cp -r "$source" "$work/source"
chmod -R u+w "$work/source"

# Starts `onex $1` on a directory of its own, which is $data from then on.
start() {
  data=$(mktemp -d "$work/data.XXXXXX")
  "$onex" "$@" --data-dir "$data" --ports auto --set 'stores.storage="memory:"' >"$data/log" 2>&1 &
  server=$!
  for _ in {1..300}; do
    [ ! -e "$data/endpoints.json" ] || return 0
    sleep 0.1
  done
  cat "$data/log"
  exit 1
}

failed=0
run() { # what it is called, the program and its arguments
  local name=$1 log="$work/${1//\//_}.log"
  shift
  if KUBECONFIG=$data/kubeconfig USE_EXISTING_CLUSTER=true timeout 600 "$@" >"$log" 2>&1; then
    echo "ok      $name: $(grep -aE '^Ran [1-9]' "$log" || echo "$(grep -acE '^ *--- PASS' "$log") passed")"
  else
    failed=1
    echo "FAILED  $name: $(grep -aE '^Ran ' "$log" || true)"
    grep -aE '^ +\[FAIL\]|^ *--- FAIL|^panic:' "$log" || tail -n 20 "$log"
  fi
}

for package in "${packages[@]}"; do
  if [ "$package" = ours ]; then
    go test -modfile=newest.mod -c -vet=off -o "$work/ours" .
    start up --set node.cgroup_parent=
    run ours "$work/ours" -test.v
  else
    (cd "$work/source" && go test -c -vet=off -o "$work/test" "./pkg/$package")
    # As envtest has it: no account for Pods. Without the half that downloads an old kube-apiserver.
    start apiserver --set 'apiserver.disable_admission=["ServiceAccount"]'
    cd "$work/source/pkg/$package"
    run "$package" "$work/test" -test.v -test.skip=TestLazyRestMapperProvider/aggregatedDiscovery=false -ginkgo.no-color
    cd - >/dev/null
  fi
  stop
done
exit $failed
