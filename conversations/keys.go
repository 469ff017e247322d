package conversations

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// slots is the number of hash slots of a Redis Cluster.
const slots = 16384

// keys spells every key. Those of a partition share its tag and so one slot,
// and one script may touch them all; the rest stand alone, each written by
// one command or script on its own key.
type keys struct {
	prefix string
	tags   []string // one for each partition
}

// newKeys finds the partitions' tags: the first of {p.0}, {p.1}, … whose slot
// lies in the middle of the partition's share of all slots, so that contiguous
// slot ranges of one to sixteen masters get even numbers of partitions.
func newKeys(prefix string, partitions int) keys {
	k := keys{prefix: prefix, tags: make([]string, partitions)}
	for p := range partitions {
		start := append(strconv.AppendInt(nil, int64(p), 10), '.')
		before, middle := crc16(0, start), (2*p+1)*slots/(2*partitions)
		for n, tag := int64(0), start; k.tags[p] == ""; n++ {
			if tag = strconv.AppendInt(tag[:len(start)], n, 10); int(crc16(before, tag[len(start):]))%slots == middle {
				k.tags[p] = "{" + string(tag) + "}"
			}
		}
	}
	return k
}

// slotOf returns the hash slot of a tag: CRC-16/XMODEM modulo 16384, as the
// Redis Cluster specification says.
func slotOf(tag string) int { return int(crc16(0, []byte(tag))) % slots }

// crc16 continues a CRC-16/XMODEM.
func crc16(crc uint16, text []byte) uint16 {
	for _, b := range text {
		crc = crc<<8 ^ crc16Table[byte(crc>>8)^b]
	}
	return crc
}

// crc16Table is what each byte does to the checksum: a process spells out its
// partitions with some hundred thousand of them.
var crc16Table = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}()

func (k keys) in(partition int, parts ...string) string {
	return k.prefix + ":" + k.tags[partition] + ":" + strings.Join(parts, ":")
}

func (k keys) alone(parts ...string) string { return k.prefix + ":" + strings.Join(parts, ":") }

// The keys of a partition.
func (k keys) contact(p int, id string) string        { return k.in(p, "c", id) }
func (k keys) request(p int, id string) string        { return k.in(p, "r", id) }
func (k keys) message(p int, id string) string        { return k.in(p, "m", id) }
func (k keys) log(p int, requestID string) string     { return k.in(p, "e", requestID) }
func (k keys) transcript(p int, id string) string     { return k.in(p, "h", id) }
func (k keys) link(p int, code string) string         { return k.in(p, "l", code) }
func (k keys) requests(p int, merchant string) string { return k.in(p, "x", merchant) }
func (k keys) talks(p int, merchant string) string    { return k.in(p, "y", merchant) }
func (k keys) commit(p int, id string) string         { return k.in(p, "i", id) }
func (k keys) dedupe(p int, key string) string        { return k.in(p, "d", digest(key)) }
func (k keys) outbox(p int) string                    { return k.in(p, "out") }
func (k keys) timers(p int) string                    { return k.in(p, "t") }
func (k keys) feed(p int) string                      { return k.in(p, "f") }
func (k keys) dead(p int) string                      { return k.in(p, "dead") }
func (k keys) pumped(p int) string                    { return k.in(p, "cb") }
func (k keys) unsettledAttempts(p int) string         { return k.in(p, "ua") }
func (k keys) unsettledOperations(p int) string       { return k.in(p, "uo") }

// The keys outside partitions.
func (k keys) address(merchant string, a Address) string {
	return k.alone("a", merchant, string(a.Kind), a.Value)
}
func (k keys) order(merchant, order string) string     { return k.alone("o", merchant, digest(order)) }
func (k keys) idempotency(merchant, key string) string { return k.alone("k", merchant, digest(key)) }
func (k keys) sealed(id string) string                 { return k.alone("s", id) }
func (k keys) throttle(name string) string             { return k.alone("q", name) }
func (k keys) sender(id string) string                 { return k.alone("w", id) }
func (k keys) callbacks(merchant string) string        { return k.alone("b", merchant) }
func (k keys) settings(merchant string) string         { return k.alone("g", merchant) }
func (k keys) tries(merchant, address string) string   { return k.alone("n", merchant, address) }
func (k keys) store() string                           { return k.alone("store") }

// callback spells a key of one of a merchant's callback endpoints. All of one
// endpoint share a tag: it belongs to every partition and to none.
func (k keys) callback(merchant, endpoint string, parts ...string) string {
	return k.prefix + ":{cb." + merchant + "." + endpoint + "}:" + strings.Join(parts, ":")
}

// digest shortens text of foreign length and alphabet to what a key may hold.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}
