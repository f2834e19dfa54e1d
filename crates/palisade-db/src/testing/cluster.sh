# Keeps a throw-away PostgreSQL cluster for the process on the other end of standard input, and removes
# it when that end closes, for whatever reason.
#
# Arguments: directory of the PostgreSQL programs, port, then pairs of file name and content; the file
# "settings" is appended to postgresql.conf, and "pg_hba.conf" replaces the default one. Commands, one
# per line: start, stop, create NAME TEMPLATE. Each is answered with one line, "ok" or what went wrong.
# Not even an answer that nobody reads any more may end it before it has cleaned up.
trap '' HUP INT TERM PIPE
umask 077
programs=$1
port=$2
shift 2
directory=$(mktemp -d) || exit 1
while [ $# -gt 1 ]; do
    printf '%s\n' "$2" >"$directory/$1"
    shift 2
done

answer() {
    if "$@" >"$directory/output" 2>&1 </dev/null; then
        echo ok
    else
        tail -n 5 "$directory/output" "$directory/log" 2>/dev/null | tr '\n' ' '
        echo
    fi
}

initialise() {
    "$programs/initdb" --no-sync --encoding=UTF8 --locale=C --auth=trust --username=palisade \
        --pgdata="$directory/data" &&
        cat "$directory/settings" >>"$directory/data/postgresql.conf" &&
        if [ -f "$directory/pg_hba.conf" ]; then cp "$directory/pg_hba.conf" "$directory/data/"; fi
}

control() {
    "$programs/pg_ctl" --pgdata="$directory/data" --log="$directory/log" --wait --timeout=60 "$@"
}

answer initialise
while read -r command name template; do
    case $command in
    start) answer control --options="-p $port" start ;;
    stop) answer control --mode=immediate stop ;;
    create)
        answer "$programs/createdb" --host=127.0.0.1 --port="$port" --username=palisade \
            --template="$template" "$name"
        ;;
    *) echo "unknown command" ;;
    esac
done
control --mode=immediate stop >/dev/null 2>&1
rm -rf "$directory"
