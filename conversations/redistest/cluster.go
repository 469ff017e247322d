package redistest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const slotCount = 16384

// Cluster is a Redis Cluster of masters without replicas, on loopback.
type Cluster struct {
	nodes   []*Server
	proxies []*Proxy // one for each node, or none
}

type clusterOptions struct{ proxies bool }

// ClusterOption changes how [StartCluster] builds a cluster.
type ClusterOption func(*clusterOptions)

// WithProxies puts a [Proxy] before each node. The nodes announce the proxies'
// ports, so that every cluster client goes through them; see [Cluster.Hold].
func WithProxies() ClusterOption {
	return func(o *clusterOptions) { o.proxies = true }
}

// StartCluster starts a cluster that belongs to the test and is killed at its
// end. The slots are divided evenly and in order. Its nodes survive a kill like
// the server of [Start]; no other node takes over, so while one is dead its
// slots are too. StartCluster returns when every node knows the whole cluster.
func StartCluster(t testing.TB, masters int, options ...ClusterOption) *Cluster {
	t.Helper()
	var o clusterOptions
	for _, option := range options {
		option(&o)
	}
	dir := func(*reservation) (string, error) { return t.TempDir(), nil }
	c, err := newCluster(masters, o, dir, durable())
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(c.discard)
	for _, node := range c.nodes {
		node.owner = t
	}
	return c
}

func newCluster(masters int, o clusterOptions, dir func(*reservation) (string, error), args []string) (*Cluster, error) {
	c := &Cluster{}
	for range masters {
		if err := c.addNode(o, dir, args); err != nil {
			c.discard()
			return nil, err
		}
	}
	if err := c.form(); err != nil {
		c.discard()
		return nil, err
	}
	return c, nil
}

// addNode starts one node, behind its proxy if there is to be one.
func (c *Cluster) addNode(o clusterOptions, dir func(*reservation) (string, error), args []string) error {
	port, err := reservePort()
	if err != nil {
		return err
	}
	home, err := dir(port)
	if err != nil {
		port.release()
		return err
	}
	clientPort := port.port
	if o.proxies {
		proxy, err := listenProxy(port.addr())
		if err != nil {
			port.release()
			return err
		}
		c.proxies = append(c.proxies, proxy)
		clientPort = proxy.port()
	}
	node := newServer(port, home, slices.Concat([]string{
		"--cluster-enabled", "yes",
		"--cluster-announce-ip", "127.0.0.1",
		"--cluster-announce-port", strconv.Itoa(clientPort),
		"--cluster-announce-bus-port", strconv.Itoa(port.port + busOffset),
	}, args))
	c.nodes = append(c.nodes, node)
	return node.start()
}

// form deals out the slots, introduces the nodes to each other and waits until
// each of them sees what was dealt.
func (c *Cluster) form() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for i, node := range c.nodes {
		if err := c.introduce(ctx, i, node); err != nil {
			return fmt.Errorf("form a cluster at %s: %w", node.Addr, err)
		}
	}
	for _, node := range c.nodes {
		node.ready = c.complete
		if err := node.awaitServer("cluster node "+node.Addr, node.ready); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) introduce(ctx context.Context, i int, node *Server) error {
	client := node.probe()
	defer func() { _ = client.Close() }() // a client made for this only
	// Epochs of their own: equal ones would first have to be fought out.
	if err := client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
		return err
	}
	first, last := c.slots(i)
	if err := client.ClusterAddSlotsRange(ctx, first, last).Err(); err != nil {
		return err
	}
	for j, other := range c.nodes[:i] {
		_, port, err := net.SplitHostPort(c.Addrs()[j])
		if err != nil {
			return err
		}
		// The bus port is said, because a proxy's port does not lead to it.
		bus := other.port.port + busOffset
		if err := client.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", port, bus).Err(); err != nil {
			return err
		}
	}
	return nil
}

// complete says whether the node behind client serves, and names every node
// for its slots by the address clients are to use.
func (c *Cluster) complete(ctx context.Context, client *redis.Client) error {
	info, err := client.ClusterInfo(ctx).Result()
	if err != nil {
		return err
	}
	if !strings.Contains(info, "cluster_state:ok") {
		return fmt.Errorf("not yet ok: %q", info)
	}
	ranges, err := announced(ctx, client)
	if err != nil {
		return err
	}
	if len(ranges) != len(c.nodes) {
		return fmt.Errorf("%d slot ranges are known, want %d", len(ranges), len(c.nodes))
	}
	for _, r := range ranges {
		if i := c.ownerOf(r.Start); len(r.Nodes) != 1 || r.Nodes[0].Addr != c.Addrs()[i] {
			return fmt.Errorf("slots from %d are at %v, want %s", r.Start, r.Nodes, c.Addrs()[i])
		}
	}
	return nil
}

// announced is what the node tells clients about who holds which slots.
func announced(ctx context.Context, client *redis.Client) ([]redis.ClusterSlot, error) {
	//lint:ignore SA1019 go-redis itself asks by CLUSTER SLOTS, and this must see what clients see
	return client.ClusterSlots(ctx).Result()
}

// slots is the range of the i-th node.
func (c *Cluster) slots(i int) (first, last int) {
	n := len(c.nodes)
	return i * slotCount / n, (i+1)*slotCount/n - 1
}

func (c *Cluster) ownerOf(slot int) int {
	for i := range c.nodes {
		if _, last := c.slots(i); slot <= last {
			return i
		}
	}
	return len(c.nodes) - 1
}

func (c *Cluster) discard() {
	for _, proxy := range c.proxies {
		proxy.close()
	}
	for _, node := range c.nodes {
		node.discard()
	}
}

// Addrs are the addresses that clients are told, in the order of the slots:
// the nodes' own, or their proxies'.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, node := range c.nodes {
		addrs[i] = node.Addr
		if len(c.proxies) > 0 {
			addrs[i] = c.proxies[i].Addr()
		}
	}
	return addrs
}

// URL names all nodes, as redis.ParseClusterURL takes it:
// redis://127.0.0.1:7001?addr=127.0.0.1:7002&addr=127.0.0.1:7003.
func (c *Cluster) URL() string {
	addrs := c.Addrs()
	more := make([]string, 0, len(addrs))
	for _, addr := range addrs[1:] {
		more = append(more, "addr="+addr)
	}
	return (&url.URL{Scheme: "redis", Host: addrs[0], RawQuery: strings.Join(more, "&")}).String()
}

// Client returns a client of the cluster that is closed at the end of the test.
func (c *Cluster) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = client.Close() }) // the test may have closed it itself
	return client
}

// Nodes are the servers in the order of their slots. Their Addr is the node's
// own, past any proxy.
func (c *Cluster) Nodes() []*Server { return slices.Clone(c.nodes) }

// Owner is the node that holds the key. At least one node has to be alive.
func (c *Cluster) Owner(t testing.TB, key string) *Server {
	t.Helper()
	var err error
	for _, node := range c.nodes {
		var slot int64
		if slot, err = keySlot(t.Context(), node, key); err == nil {
			return c.nodes[c.ownerOf(int(slot))]
		}
	}
	t.Fatalf("redistest: slot of a key: %v", err)
	return nil
}

func keySlot(ctx context.Context, node *Server, key string) (int64, error) {
	client := node.probe()
	defer func() { _ = client.Close() }() // a client made for this only
	return client.ClusterKeySlot(ctx, key).Result()
}

// Hold arms one hold on the proxies of all nodes: it catches the first command
// that matches at any of them. See [Proxy.Hold]. It panics in a cluster that
// was started without [WithProxies].
func (c *Cluster) Hold(match func(command []string) bool, when When) *Held {
	if len(c.proxies) == 0 {
		panic("redistest: Hold needs a cluster started WithProxies")
	}
	h := newHeld(match, when)
	for _, proxy := range c.proxies {
		proxy.arm(h)
	}
	return h
}
