package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// update makes golden tests rewrite their files instead of comparing them.
var update = flag.Bool("update", false, "rewrite golden and generated files")

// golden compares got with the file, or writes it with -update.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./gateway -run '^%s$' -update", err, t.Name())
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code makes; look at the difference after: go test ./gateway -run '^%s$' -update", file, t.Name())
	}
}
