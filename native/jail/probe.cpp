// tskata-jail-probe: a test's program (test/vm/jail.test.ts), run by tskata-jail in a sandbox's place. Each attempt is made by a process
// of its own that has given up what a thread of the role has; a line tells what came of it.
int main() { return 0; }
