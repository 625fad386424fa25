package transfer_test

import (
	"testing"
	"time"

	"example.com/iad/transfer/tftp"
)

func TestTFTPPutDuplicateAck(t *testing.T) {
	extra := make(chan int, 1)
	r := scriptTFTP(t, func(s *scripted) {
		s.ack(0)
		count := 0
		for n := 1; n <= 3; n++ {
			p, ok := s.next(patient)
			if !ok || p.Op != tftp.OpData || p.Block != uint16(n) {
				t.Errorf("want block %d, got %v", n, p)
			}
			s.ack(n)
			s.ack(n) // duplicated on the way
		}
		for {
			if _, ok := s.next(50 * time.Millisecond); !ok {
				break
			}
			count++
		}
		extra <- count
	})
	if err := put(t, r.client(t), "file", file512); err != nil {
		t.Fatal(err)
	}
	if n := <-extra; n != 0 {
		t.Errorf("%d blocks in answer to duplicates", n)
	}
}

func TestTFTPPutGoesBack(t *testing.T) {
	r := scriptTFTP(t, func(s *scripted) {
		s.accept(tftp.Options{Window: 4, HasSize: true, Size: s.request.Options.Size})
		var got []int
		want := func(blocks ...int) {
			for _, n := range blocks {
				p, ok := s.next(patient)
				if !ok || p.Op != tftp.OpData || p.Block != uint16(n) {
					t.Errorf("want block %d after %v, got %v %v", n, got, p.Block, ok)
				}
				got = append(got, int(p.Block))
			}
		}
		want(1, 2, 3, 4)
		s.ack(2) // block 3 was lost
		want(3, 4, 5, 6)
		s.ack(6)
		want(7, 8, 9) // the last one is short
		want(7, 8, 9) // our acknowledgement was lost: it repeats
		s.ack(9)
	})
	if err := put(t, r.client(t), "file", testContent(8*512+1, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestTFTPPutLostOptionAck(t *testing.T) {
	r := scriptTFTP(t, func(s *scripted) {
		s.accept(tftp.Options{Window: 2})
		s.next(patient) // block 1 is lost
		s.accept(tftp.Options{Window: 2})
		p, ok := s.next(patient)
		if !ok || p.Block != 1 {
			t.Errorf("want block 1, got %v %v", p, ok)
		}
		s.ack(1)
	})
	if err := put(t, r.client(t), "file", []byte("x")); err != nil {
		t.Fatal(err)
	}
}
