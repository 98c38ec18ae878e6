#!/bin/sh
# Ends the servers that the test processes of a run share, once no test process is left.
#
#   keeper.sh DIR
#
# Every test process holds a shared lock on DIR/users as long as it lives; who starts the servers holds DIR/start.
# The kernel gives a lock back however its holder ends.
dir=$1
idle=0
# Between two test processes of a run there may be none for a moment: idle for five questions in a row, 2 s apart.
while [ "$idle" -lt 5 ]; do
    sleep 2
    if flock --nonblock "$dir/users" true; then idle=$((idle + 1)); else idle=0; fi
done
(
    # Somebody is starting to use them just now: look again later, by a new keeper.
    flock --nonblock 9 || exit 1
    flock --nonblock 8 || exit 1
    postgres=$(head -n 1 "$(cat "$dir/postgres.data")/postmaster.pid" 2>/dev/null)
    etcd=$(cat "$dir/etcd.pid" 2>/dev/null)
    # A pid of before may be another process by now.
    [ "$(cat "/proc/$postgres/comm" 2>/dev/null)" = postgres ] && kill -QUIT "$postgres"
    [ "$(cat "/proc/$etcd/comm" 2>/dev/null)" = etcd ] && kill -KILL "$etcd"
    tries=50
    while [ -e "/proc/$postgres" ] && [ "$tries" -gt 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    rm -rf "$(cat "$dir/postgres.data")" "$dir/etcd" "$dir/servers.json" "$dir/etcd.pid" "$dir/postgres.data"
) 9>"$dir/start" 8>>"$dir/users" || exec "$0" "$dir"
