# Cofferdam (CIS 5.4.3): what is written is not for everybody; no memory of a program is kept; a
# forgotten shell ends. Only bash knows TMOUT.
umask 027
ulimit -c 0
if [ -n "${BASH_VERSION:-}" ]; then
    declare -xr TMOUT=600 2>/dev/null
fi
