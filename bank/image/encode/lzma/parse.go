package lzma

import (
	"math"
	"slices"

	"example.com/iad/bank/image/probability"
)

const (
	maxMatch = 273
	// blockSize is for how many bytes a path is chosen at once; the prices are brought up to
	// date between blocks.
	blockSize = 2048
	// niceLength is that of a match which is taken without comparing it with others.
	niceLength = 200
)

// A node is a position in a block, and the cheapest way to it that is known.
type node struct {
	price uint32
	op    operation
	// The operation may follow a literal, and that a match, so that both need no way of
	// their own to the positions between.
	before [2]operation
	count  int // of before
	state  uint
	rep    [4]int32
}

// parse returns the cheapest operations for the next block.
func (e *encoder) parse() []operation {
	e.prices.update(&e.Model, e.PB)
	end := min(blockSize, len(e.data)-e.pos)
	nodes := e.nodes[:end+1]
	for i := range nodes {
		nodes[i].price = math.MaxUint32
	}
	nodes[0] = node{state: e.state, rep: e.rep}
	for i := 0; i < end; i++ {
		n := &nodes[i]
		if i > 0 {
			e.arrive(nodes, i)
		}
		if nice := e.leave(nodes, n, i); nice.length > 0 {
			end = min(end, i+int(nice.length))
			nice.length = int32(end - i)
			nodes[end].op, nodes[end].count = nice, 0
			break
		}
	}
	e.path = e.path[:0]
	for i := end; i > 0; {
		n := &nodes[i]
		e.path = append(e.path, n.op)
		i -= int(n.op.length)
		for _, op := range slices.Backward(n.before[:n.count]) {
			e.path = append(e.path, op)
			i -= int(op.length)
		}
	}
	slices.Reverse(e.path)
	return e.path
}

// arrive computes state and distances at a node from those at the node before.
func (e *encoder) arrive(nodes []node, i int) {
	n := &nodes[i]
	start := i - int(n.op.length)
	for _, op := range n.before[:n.count] {
		start -= int(op.length)
	}
	n.state, n.rep = nodes[start].state, nodes[start].rep
	for _, op := range n.before[:n.count] {
		n.after(op)
	}
	n.after(n.op)
}

func (n *node) after(op operation) {
	switch {
	case op.kind == literal:
		n.state = probability.AfterLiteral(n.state)
	case op.kind >= 4:
		n.rep = [4]int32{op.kind - 4, n.rep[0], n.rep[1], n.rep[2]}
		n.state = probability.AfterMatch(n.state)
	case op.length == 1:
		n.state = probability.AfterShortRep(n.state)
	default:
		n.rep = moved(n.rep, op.kind)
		n.state = probability.AfterRepeat(n.state)
	}
}

// better notes a way to a node if it is cheaper than the one that is known.
func better(n *node, price uint32, op operation) {
	if price < n.price {
		n.price, n.op, n.count = price, op, 0
	}
}

// leave notes all ways from node n, which is number i. It returns a match that is long enough
// to be taken at once.
func (e *encoder) leave(nodes []node, n *node, i int) (nice operation) {
	pos := e.pos + i
	posState := e.posState(pos)
	limit := min(maxMatch, len(nodes)-1-i)
	matchPrice := n.price + price(e.IsMatch[n.state][posState], 1)
	repPrice := matchPrice + price(e.IsRep[n.state], 1)
	literalPrice := n.price + price(e.IsMatch[n.state][posState], 0) + e.literalPrice(pos, n.state, n.rep[0])
	better(&nodes[i+1], literalPrice, operation{1, literal})

	same := func(distance int32) bool { return int(distance) < pos && e.data[pos] == e.data[pos-1-int(distance)] }
	if same(n.rep[0]) {
		better(&nodes[i+1], repPrice+price(e.IsRep0[n.state], 0)+price(e.IsRep0Long[n.state][posState], 0), operation{1, 0})
	}
	// A literal, then the last distance once more.
	if limit > 2 && int(n.rep[0]) < pos && !same(n.rep[0]) {
		e.thenRepeat(nodes, i, i+1, literalPrice, probability.AfterLiteral(n.state), n.rep[0], [2]operation{{1, literal}}, 1)
	}
	if limit < probability.MinMatch {
		return operation{}
	}
	longest := 0
	for which := range int32(4) {
		distance := n.rep[which]
		if int(distance) >= pos {
			continue
		}
		length := common(e.data, pos-1-int(distance), pos, 0, limit)
		if length < probability.MinMatch {
			continue
		}
		if length >= niceLength {
			return operation{int32(length), which}
		}
		base := repPrice + e.whichPrice(n.state, posState, which)
		for l := length; l >= probability.MinMatch; l-- {
			better(&nodes[i+l], base+e.prices.repeat[posState][l], operation{int32(l), which})
		}
		longest = max(longest, length)
		e.thenLiteral(nodes, i, length, base+e.prices.repeat[posState][length], probability.AfterRepeat(n.state), distance, operation{int32(length), which})
	}
	matches := e.matches.at(pos)
	if len(matches) == 0 {
		return operation{}
	}
	if last := matches[len(matches)-1]; min(int(last.length), limit) >= niceLength {
		return operation{last.length, last.distance + 4}
	}
	base := matchPrice + price(e.IsRep[n.state], 0)
	l := probability.MinMatch
	for _, m := range matches {
		for ; l <= min(int(m.length), limit); l++ {
			better(&nodes[i+l], base+e.prices.match[posState][l]+e.prices.distance(int(m.distance), l), operation{int32(l), m.distance + 4})
		}
		if length := min(int(m.length), limit); length > longest {
			e.thenLiteral(nodes, i, length, base+e.prices.match[posState][length]+e.prices.distance(int(m.distance), length),
				probability.AfterMatch(n.state), m.distance, operation{int32(length), m.distance + 4})
		}
	}
	return operation{}
}

// thenLiteral notes, after a match from node i, a literal and then the same distance again:
// what differs in one byte.
func (e *encoder) thenLiteral(nodes []node, i, length int, priceSoFar uint32, state uint, distance int32, op operation) {
	next := i + length
	if next+1+probability.MinMatch >= len(nodes) {
		return
	}
	pos := e.pos + next
	total := priceSoFar + price(e.IsMatch[state][e.posState(pos)], 0) + e.literalPrice(pos, state, distance)
	e.thenRepeat(nodes, i, next+1, total, probability.AfterLiteral(state), distance, [2]operation{op, {1, literal}}, 2)
}

// thenRepeat notes the last distance again, after operations that lead from node i to node
// next.
func (e *encoder) thenRepeat(nodes []node, i, next int, priceSoFar uint32, state uint, distance int32, before [2]operation, count int) {
	pos := e.pos + next
	length := common(e.data, pos-1-int(distance), pos, 0, min(maxMatch, len(nodes)-1-next))
	if length < probability.MinMatch {
		return
	}
	posState := e.posState(pos)
	priceSoFar += price(e.IsMatch[state][posState], 1) + price(e.IsRep[state], 1) + e.whichPrice(state, posState, 0) + e.prices.repeat[posState][length]
	if n := &nodes[next+length]; priceSoFar < n.price {
		n.price, n.op, n.before, n.count = priceSoFar, operation{int32(length), 0}, before, count
	}
}

// whichPrice is the price of saying which distance is repeated, for a length above 1.
func (e *encoder) whichPrice(state, posState uint, which int32) uint32 {
	if which == 0 {
		return price(e.IsRep0[state], 0) + price(e.IsRep0Long[state][posState], 1)
	}
	sum := price(e.IsRep0[state], 1) + price(e.IsRep1[state], pick(which == 1, 0, 1))
	if which > 1 {
		sum += price(e.IsRep2[state], uint(which-2))
	}
	return sum
}

func (e *encoder) literalPrice(pos int, state uint, distance int32) (sum uint32) {
	p, b := e.literalModel(pos), uint(e.data[pos])
	if state < 7 {
		return treePrice(p[:0x100], b)
	}
	match := uint(e.data[pos-1-int(distance)])
	symbol := uint(1)
	matching := true
	for n := 7; n >= 0; n-- {
		bit := b >> n & 1
		if matching {
			expected := match >> n & 1
			sum += price(p[(1+expected)<<8+symbol], bit)
			matching = expected == bit
		} else {
			sum += price(p[symbol], bit)
		}
		symbol = symbol<<1 | bit
	}
	return sum
}
