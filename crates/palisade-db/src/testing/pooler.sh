# Keeps a pgbouncer for the process on the other end of standard input, and removes it when that end
# closes. Arguments: the content of pgbouncer.ini.
trap '' HUP INT TERM PIPE
umask 077
PATH=$PATH:/usr/sbin
directory=$(mktemp -d) || exit 1
printf '%s' "$1" >"$directory/pgbouncer.ini"
pgbouncer "$directory/pgbouncer.ini" >"$directory/log" 2>&1 </dev/null &
cat >/dev/null
kill -9 $!
rm -rf "$directory"
