use IO::Socket::UNIX;
my $agent = IO::Socket::UNIX->new(Peer => $ENV{SSH_AUTH_SOCK}) or die "no agent: $!\n";
print $agent pack("N/a", "\x0b");
$agent->flush;
read($agent, my $length, 4);
read($agent, my $answer, unpack("N", $length));
my ($type, $number) = unpack("CN", $answer);
print "$type: $number keys\n";
