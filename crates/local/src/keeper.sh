#!/bin/sh
# Ends the servers that the test processes of a run share, once no test process is left.
#
#   keeper.sh DIR
#
# Every test process holds a shared lock on DIR/users as long as it lives. A process that starts the servers, or looks
# whether they run, holds a lock on DIR/start. The kernel releases a lock however its holder ends.
dir=$1
idle=0
# Between two test processes of a run there may be none for a moment. The servers therefore count as idle only when
# nobody holds DIR/users at five checks in a row, which are 2 s apart.
while [ "$idle" -lt 5 ]; do
    sleep 2
    if flock --nonblock "$dir/users" true; then idle=$((idle + 1)); else idle=0; fi
done
(
    # If one of the locks is held, a process has just begun to use the servers. This script then begins anew.
    flock --nonblock 9 || exit 1
    flock --nonblock 8 || exit 1
    etcd=$(cat "$dir/etcd.pid" 2>/dev/null)
    # A server's pid may belong to another program by now, so the program's name is compared before the kill.
    [ "$(cat "/proc/$etcd/comm" 2>/dev/null)" = etcd ] && kill -KILL "$etcd"
    # A line is the data directory of a Postgres server.
    while read -r data; do
        postgres=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
        [ "$(cat "/proc/$postgres/comm" 2>/dev/null)" = postgres ] && kill -QUIT "$postgres"
        tries=50
        while [ -n "$postgres" ] && [ -e "/proc/$postgres" ] && [ "$tries" -gt 0 ]; do
            sleep 0.1
            tries=$((tries - 1))
        done
        rm -rf "$data"
    done <"$dir/postgres.data"
    rm -rf "$dir/etcd" "$dir/servers.json" "$dir/etcd.pid" "$dir/postgres.data"
) 9>"$dir/start" 8>>"$dir/users" || exec "$0" "$dir"
