package main

import (
	"context"
	"os"
	"os/exec"
	"syscall"
)

// command prepares a program to run with the image as its root, as the image's
// user. Whoever is not root becomes that user in a namespace of its own.
func (i inside) command(ctx context.Context, program string, args ...string) (*exec.Cmd, error) {
	c := exec.CommandContext(ctx, program, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: i.root, Credential: &syscall.Credential{Uid: i.uid, Gid: i.gid}}
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: int(i.uid), HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: int(i.gid), HostID: os.Getgid(), Size: 1}}
		c.SysProcAttr.Credential.NoSetGroups = true
	}
	return c, nil
}
