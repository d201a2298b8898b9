# Cofferdam (CIS 5.4.3): what is written is not for everybody; a forgotten shell ends. Only bash knows TMOUT.
umask 027
if [ -n "${BASH_VERSION:-}" ]; then
    declare -xr TMOUT=600 2>/dev/null
fi
