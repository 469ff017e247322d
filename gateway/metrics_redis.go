package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"paythread/conversations"
)

// redisMetrics count the calls of Redis.
type redisMetrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// The outcomes of a call of Redis.
const (
	redisOK     = "ok"
	redisFailed = "failed"
)

func newRedisMetrics(r prometheus.Registerer) *redisMetrics {
	m := &redisMetrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paythread_redis_calls_total", Help: "Calls of Redis, with the client's own repetitions, by class of command and outcome.",
		}, []string{"class", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "paythread_redis_call_seconds", Help: "Time of a call of Redis, by class of command; of a blocking one with its waiting.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"class"}),
	}
	for _, class := range conversations.RedisClasses {
		m.calls.WithLabelValues(string(class), redisOK)
		m.calls.WithLabelValues(string(class), redisFailed)
		m.seconds.WithLabelValues(string(class))
	}
	r.MustRegister(m.calls, m.seconds)
	return m
}

// count is told of every call.
func (m *redisMetrics) count(c conversations.RedisCall) {
	outcome := redisOK
	if c.Failed {
		outcome = redisFailed
	}
	m.calls.WithLabelValues(string(c.Class), outcome).Inc()
	m.seconds.WithLabelValues(string(c.Class)).Observe(c.Took.Seconds())
}

// poolCollector tells how the connections to Redis stand when it is scraped.
type poolCollector struct {
	pools func() []conversations.RedisPool

	connections *prometheus.Desc
	gets        *prometheus.Desc
	stale       *prometheus.Desc
}

func newPoolCollector(pools func() []conversations.RedisPool) *poolCollector {
	return &poolCollector{
		pools:       pools,
		connections: prometheus.NewDesc("paythread_redis_pool_connections", "Connections to Redis, by pool and state.", []string{"pool", "state"}, nil),
		gets:        prometheus.NewDesc("paythread_redis_pool_gets_total", "Calls that wanted a connection to Redis: hit, one was idle; new, one was made; timeout, none was free in time.", []string{"pool", "outcome"}, nil),
		stale:       prometheus.NewDesc("paythread_redis_pool_stale_total", "Connections to Redis that were closed because they were broken or too old.", []string{"pool"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *poolCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.gets, c.stale} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *poolCollector) Collect(out chan<- prometheus.Metric) {
	for _, p := range c.pools() {
		out <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(p.Used), p.Name, "used")
		out <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(p.Idle), p.Name, "idle")
		out <- prometheus.MustNewConstMetric(c.gets, prometheus.CounterValue, float64(p.Hits), p.Name, "hit")
		out <- prometheus.MustNewConstMetric(c.gets, prometheus.CounterValue, float64(p.News), p.Name, "new")
		out <- prometheus.MustNewConstMetric(c.gets, prometheus.CounterValue, float64(p.Timeouts), p.Name, "timeout")
		out <- prometheus.MustNewConstMetric(c.stale, prometheus.CounterValue, float64(p.StaleClosed), p.Name)
	}
}
