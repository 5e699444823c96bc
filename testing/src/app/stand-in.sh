#!/bin/sh
# Stands in for the program `allcores` in the tests of the harness: says that two workers are ready, ends well on SIGTERM,
# and answers `status`.
case $1 in
status) echo "{\"name\":\"$2\",\"dir\":\"$ALLCORES_RUNTIME_DIR\"}"; exit ;;
esac
echo "arguments: $*"
trap 'echo "{\"event\":\"stopped\"}"; exit 0' TERM
for slot in 0 1; do echo "{\"event\":\"ready\",\"worker\":{\"id\":1,\"slot\":$slot,\"pid\":$$}}"; done
while :; do sleep 0.01; done
