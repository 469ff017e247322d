//go:build !linux

package redistest

import "os/exec"

// startTied starts cmd. Only Linux can tie a child's life to its parent's, so
// here it outlives a test process that is killed.
func startTied(cmd *exec.Cmd) error { return cmd.Start() }
