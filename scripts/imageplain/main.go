// Command imageplain does by itself what the Dockerfile says, where no container
// engine runs, and looks at what comes of it: so that CI finds a Dockerfile that
// has rotted. It knows the few instructions that the Dockerfile has, and refuses
// every other one rather than guess.
//
//	go run ./scripts/imageplain VERSION
//
// The tools of the image that the Dockerfile builds in are this machine's own.
// What runs, runs in the finished root file system and as its user, which takes
// Linux, and root or user namespaces.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == insideArgument {
		if err := lookAround(os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "imageplain:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("usage: imageplain VERSION")
	}
	dir, err := os.MkdirTemp("", "imageplain")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	text, err := os.ReadFile("Dockerfile")
	if err != nil {
		return err
	}
	made, err := build(ctx, string(text), ".", dir, args[0])
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	size, err := inspect(ctx, made, args[0], filepath.Join(dir, "mounted"), self)
	if err != nil {
		return err
	}
	fmt.Printf("The image is right: %.1f MB, runs as %s.\n", float64(size)/1e6, made.user)
	return nil
}
