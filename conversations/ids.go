package conversations

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"strings"
)

// Identifiers and link codes carry their partition as one character after the
// prefix, so that whoever holds one knows where its keys lie.
const (
	contactPrefix     = "c_"
	requestPrefix     = "pr_"
	messagePrefix     = "m_"
	sealedOrderPrefix = "so_"

	// idAlphabet is Crockford's base 32 in lower case: nothing in it is
	// mistaken for something else when read aloud.
	idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	// MaxPartitions is how many partitions one character can name.
	MaxPartitions = len(idAlphabet)

	idLength   = 19 // characters after the partition: 95 bits
	codeLength = 13 // of a link code: 65 bits
)

// randomID returns a new identifier of a thing in a partition.
func randomID(prefix string, partition int) string {
	return prefix + string(idAlphabet[partition]) + randomText(idLength)
}

// newLinkCode returns the unguessable part of a short link.
func newLinkCode(partition int) string {
	return string(idAlphabet[partition]) + randomText(codeLength)
}

func randomText(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails since Go 1.24
	for i := range b {
		b[i] = idAlphabet[b[i]&31]
	}
	return string(b)
}

// derivedID returns the identifier that always stands for the same parts: for
// things that must get the same one however often they are delivered.
func derivedID(prefix string, partition int, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	sum := h.Sum(nil)
	for i := range idLength {
		sum[i] = idAlphabet[sum[i]&31]
	}
	return prefix + string(idAlphabet[partition]) + string(sum[:idLength])
}

// partitionOf reads the partition out of an identifier or a link code. It
// returns false for anything that none of ours can be.
func partitionOf(id, prefix string, partitions int) (int, bool) {
	rest, ok := strings.CutPrefix(id, prefix)
	if !ok || rest == "" || len(rest) > 64 {
		return 0, false
	}
	for i := range len(rest) {
		if c := rest[i]; strings.IndexByte(idAlphabet, c) < 0 && c != '-' && c != '_' && c != 'o' {
			return 0, false
		}
	}
	p := strings.IndexByte(idAlphabet, rest[0])
	return p, p >= 0 && p < partitions
}
