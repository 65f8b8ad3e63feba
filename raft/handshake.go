package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Every connection between servers begins with a question and an answer:
//
//	magic, the caller's cluster, the number of clusters that it descends from and those, the name of the server that it wants
//	-> a verdict, the answering server's cluster
//
// So a server never hears a word of consensus from another cluster, such as the one that its own was recovered from, nor one that
// is meant for a server that had its address before.
const (
	helloMagic = "shoalrf2"

	verdictWelcome    = 0
	verdictStranger   = 1 // another cluster
	verdictSuperseded = 2 // a cluster that the answering server's was recovered from
	verdictNoCluster  = 3 // the answering server has not joined one yet
	verdictOther      = 4 // the answering server has another name
)

var (
	errStranger = errors.New("it belongs to another cluster")
	errOther    = errors.New("it is another server")
)

// greet asks the server at the other end whether it is of this cluster and has the name.
func (n *Node) greet(ctx context.Context, conn net.Conn, name string) error {
	mine := n.identity.get()
	hello := append([]byte(helloMagic), mine.Cluster[:]...)
	hello = append(hello, byte(len(mine.Previous)))
	for _, p := range mine.Previous {
		hello = append(hello, p[:]...)
	}
	hello = append(hello, byte(len(name)))
	hello = append(hello, name...)
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	var answer [1 + len(ClusterID{})]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("no answer to the greeting: %w", err)
	}
	theirs := ClusterID(answer[1:])
	switch answer[0] {
	case verdictWelcome:
		return conn.SetDeadline(time.Time{})
	case verdictNoCluster:
		return errors.New("it has not joined the cluster yet")
	case verdictOther:
		return errOther
	case verdictSuperseded:
		return n.supersede(theirs)
	}
	n.noteStranger(conn, theirs)
	return fmt.Errorf("%w, %s", errStranger, theirs)
}

// answerGreeting lets a server of this cluster in.
func (n *Node) answerGreeting(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		return err
	}
	head := make([]byte, len(helloMagic)+len(ClusterID{})+1)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	if string(head[:len(helloMagic)]) != helloMagic {
		return errors.New("the other server speaks another version of the protocol")
	}
	theirs := identityContent{Cluster: ClusterID(head[len(helloMagic):])}
	count := int(head[len(head)-1])
	if count > maxPrevious {
		return errors.New("malformed greeting")
	}
	for range count {
		var p ClusterID
		if _, err := io.ReadFull(conn, p[:]); err != nil {
			return err
		}
		theirs.Previous = append(theirs.Previous, p)
	}
	name, err := readName(conn)
	if err != nil {
		return err
	}
	mine := n.identity.get()
	verdict := judge(&mine, &theirs)
	if verdict == verdictWelcome && name != n.cfg.ID {
		verdict = verdictOther
	}
	if _, err := conn.Write(append([]byte{verdict}, mine.Cluster[:]...)); err != nil {
		return err
	}
	switch verdict {
	case verdictWelcome:
		return conn.SetDeadline(time.Time{})
	case verdictNoCluster:
		return errors.New("this server has not joined a cluster yet")
	case verdictOther:
		return fmt.Errorf("the caller wants %q", name)
	case verdictSuperseded:
		n.noteStranger(conn, theirs.Cluster)
	case verdictStranger:
		if theirs.descendsFrom(mine.Cluster) {
			return n.supersede(theirs.Cluster)
		}
		n.noteStranger(conn, theirs.Cluster)
	}
	return fmt.Errorf("%w, %s", errStranger, theirs.Cluster)
}

func readName(conn net.Conn) (string, error) {
	var length [1]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return "", err
	}
	name := make([]byte, length[0])
	_, err := io.ReadFull(conn, name)
	return string(name), err
}

func judge(mine, theirs *identityContent) byte {
	switch {
	case mine.Cluster.IsZero():
		return verdictNoCluster
	case !mine.SupersededBy.IsZero(), theirs.Cluster.IsZero():
		return verdictStranger
	case mine.Cluster == theirs.Cluster:
		return verdictWelcome
	case mine.descendsFrom(theirs.Cluster):
		return verdictSuperseded
	}
	return verdictStranger
}

// supersede ends this server's part in a cluster that was recovered without it.
func (n *Node) supersede(by ClusterID) error {
	if err := n.identity.supersede(by); err != nil {
		n.logger.Error(err.Error())
	}
	return ErrSuperseded
}

// noteStranger tells once of each other cluster that turns up: its servers try again and again.
func (n *Node) noteStranger(conn net.Conn, theirs ClusterID) {
	n.mu.Lock()
	_, known := n.strangers[theirs]
	if !known && len(n.strangers) < maxStrangers {
		n.strangers[theirs] = struct{}{}
	}
	n.mu.Unlock()
	if !known {
		n.logger.Warn("refused a server of another cluster", "peer", conn.RemoteAddr(), "cluster", theirs, "own", n.Cluster())
	}
}

// maxStrangers bounds the other clusters that are remembered.
const maxStrangers = 64
