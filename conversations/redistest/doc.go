// Package redistest runs real redis-servers for tests: one server, a cluster,
// a master with a replica and a Sentinel, and a proxy that can hold one named
// command before it runs or keep back its answer.
//
// Everything listens on loopback only, and everything ends with the test that
// started it. What is shared by the tests of one process ends with that
// process, see [Shared]. On Linux the kernel kills every server when the test
// process dies, however it dies; elsewhere a test process that is killed
// leaves its servers behind.
//
// It needs redis-server 7.0 or newer in PATH. A missing one fails the test and
// names the command that installs it: a test that was skipped for want of a
// server would look like a test that passed.
package redistest
