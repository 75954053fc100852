# status: 12
# perl: pipes, fork, signals, sockets pairs, file tests, sort of a large list.
exec perl -we '
use strict; use POSIX ":sys_wait_h"; use Socket; use IO::Handle; use File::Find; use File::Temp "tempdir";
my $pid = open(my $p, "-|") // die; if (!$pid) { print "from child\n"; exit 3 } print <$p>; close $p; print "status ", $? >> 8, "\n";
socketpair(my $x, my $y, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; $x->autoflush(1);
if (fork == 0) { my $l = <$y>; print STDOUT "child got $l"; exit 0 } print $x "over the pair\n"; wait;
local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; select(undef, undef, undef, 5); }; print "eval: $@"; alarm 0;
local $SIG{CHLD} = "DEFAULT"; my $k = fork; if (!$k) { sleep 50; exit } kill TERM => $k; waitpid $k, 0; print "signal ", $? & 127, "\n";
my $d = tempdir(CLEANUP => 1); for (1..200) { open my $f, ">", "$d/$_" or die; print $f "x" x $_; close $f }
my $sum = 0; find(sub { $sum += -s if -f }, $d); print "bytes $sum\n"; rename "$d/1", "$d/renamed" or die; print -e "$d/renamed" ? "renamed\n" : "no\n";
my @s = sort { $a <=> $b } map { ($_ * 7919) % 10007 } 1..20000; print "$s[0] $s[-1] ", scalar(@s), "\n";
print "lines: ", scalar(() = `seq 1 3000` =~ /\n/g), "\n"; printf "%s\n", join ",", map { sprintf "%o", $_ & 07777 } (stat "/tmp")[2];
exec "sh", "-c", "exit 12"'
