# timeout: 120
# A multi-threaded C program under load.
exec /opt/threads
