package main

import "crypto/sha256"

// streamCaller is on whose behalf a stream is open. The zero value is nobody:
// such a stream is not counted, and stays as long as it likes.
type streamCaller struct {
	id    [sha256.Size]byte // tells one API key or token from another
	most  int               // streams of it at a time in one process; 0 for any number
	still func() bool       // whether the call would still be let in
}

// in tells whether the stream's call would still be let in.
func (c streamCaller) in() bool { return c.still == nil || c.still() }

// full tells whether a caller has as many streams as it may.
func (s *streams) full(c streamCaller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fullLocked(c)
}

func (s *streams) fullLocked(c streamCaller) bool { return c.most > 0 && s.byCaller[c.id] >= c.most }

func (s *streams) countLocked(c streamCaller, by int) {
	if c.most == 0 {
		return
	}
	s.byCaller[c.id] += by
	if s.byCaller[c.id] == 0 {
		delete(s.byCaller, c.id)
	}
}

// errTooManyStreams is answered to a caller that is full.
func errTooManyStreams(most int) error {
	return newProblem(codeTooMany, "too_many_streams", "this API key or token has its "+countOf(most, "stream")+" open here already; close one, or follow several payment requests by one stream")
}

// recheck ends the streams whose call would not be let in any more, such as
// those of an API key that was taken out of the configuration. Their clients
// come back and are told why.
func (s *streams) recheck() {
	s.mu.Lock()
	open := make([]*stream, 0, len(s.all))
	for st := range s.all {
		open = append(open, st)
	}
	s.mu.Unlock()
	ended := 0
	for _, st := range open { // without the lock: a token is verified anew
		if !st.caller.in() {
			st.cut()
			ended++
		}
	}
	if ended > 0 {
		s.log.Info("event streams were ended whose API key or token is not good any more", "streams", ended)
	}
}
