# A static Go program.
exec /opt/go_program
