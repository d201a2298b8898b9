# Cofferdam (CIS 5.4.3): what is written is not for everybody; a forgotten shell ends.
umask 027
TMOUT=900
readonly TMOUT
export TMOUT
