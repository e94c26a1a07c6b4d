use IO::Socket::UNIX;
# Lists the keys, then asks for what a build must not do: removing them all, locking the agent.
my $agent = IO::Socket::UNIX->new(Peer => $ENV{SSH_AUTH_SOCK}) or die "no agent: $!\n";
for my $request ("\x0b", "\x13", "\x16\0\0\0\1x", "\x0b") {
    print $agent pack("N/a", $request);
    $agent->flush;
    read($agent, my $length, 4);
    read($agent, my $answer, unpack("N", $length));
    my ($type, $number) = unpack("CN", $answer);
    print $type == 12 ? "$number keys\n" : "type $type\n";
}
