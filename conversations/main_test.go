package conversations

import (
	"flag"
	"os"
	"testing"

	"paythread/conversations/redistest"
)

// update rewrites the files that tests named TestGenerated... print.
var update = flag.Bool("update", false, "rewrite the printed files")

func TestMain(m *testing.M) {
	code := m.Run()
	redistest.StopShared()
	os.Exit(code)
}
