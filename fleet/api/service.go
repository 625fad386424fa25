package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/sse"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

// Ping is an event without meaning: the connection is alive.
type Ping struct {
	Time time.Time `json:"time"`
}

func (s *server) registerService() {
	register(s, operation(operations.Read, http.MethodGet, "/overview", "get-overview", "Show the state of the fleet", tag("service")),
		func(ctx context.Context, by operations.Caller, _ *struct{}) (operations.Overview, error) {
			o, err := s.Service.Overview(ctx, by)
			if err != nil {
				return operations.Overview{}, err
			}
			o.Versions, o.Models = list(o.Versions), list(o.Models)
			return *o, nil
		})
	register(s, operation(operations.Read, http.MethodGet, "/workers", "list-workers", "List the workers"),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]fleet.Worker, error) {
			workers, err := s.Service.Workers(ctx, by)
			return list(workers), err
		})
	registerEmpty(s, operation(operations.DrainWorker, http.MethodPut, "/workers/{id}/drain", "drain-worker", "Let a worker take no further runs, or let it take runs again"),
		func(ctx context.Context, by operations.Caller, in *struct {
			ID   string `path:"id"`
			Body bool
		}) error {
			return s.Service.DrainWorker(ctx, by, in.ID, in.Body)
		})
	register(s, operation(operations.Read, http.MethodGet, "/nodes", "list-nodes", "List the processes that store", tag("service")),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]operations.Node, error) {
			nodes, err := s.Service.Nodes(ctx, by)
			return list(nodes), err
		})
	registerEmpty(s, operation(operations.RemoveNode, http.MethodDelete, "/nodes/{name}", "remove-node", "Remove a node for good that does not run", tag("service")),
		func(ctx context.Context, by operations.Caller, in *Named) error {
			return s.Service.RemoveNode(ctx, by, in.Name)
		})
	register(s, operation(operations.Read, http.MethodGet, "/damage", "list-damage", "List stored objects that cannot be decoded and are skipped", tag("service")),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]operations.Damage, error) {
			damage, err := s.Service.Damage(ctx, by)
			return list(damage), err
		})
	registerEmpty(s, operation(operations.RemoveDamage, http.MethodDelete, "/damage/{place}/{key}", "remove-damage", "Remove a stored object that cannot be decoded", tag("service")),
		func(ctx context.Context, by operations.Caller, in *struct {
			Place    string `path:"place" example:"run"`
			Key      string `path:"key"`
			Revision uint64 `query:"revision" required:"true" doc:"The revision in the list; an object that was replaced since is not removed"`
		}) error {
			return s.Service.RemoveDamage(ctx, by, in.Place, in.Key, in.Revision)
		})
	register(s, operation(operations.ReadAudit, http.MethodGet, "/audit", "list-audit", "List audit entries, the newest first", tag("service")),
		func(ctx context.Context, by operations.Caller, in *struct {
			Before uint64 `query:"before" doc:"Begin before the entry with this number; 0: with the newest"`
			Actor  string `query:"actor" doc:"The beginning of the actor"`
			Action string `query:"action" doc:"The beginning of the action"`
			Object string `query:"object" doc:"The beginning of the object"`
			Limit  int    `query:"limit" minimum:"0" maximum:"1000" doc:"0: 50"`
		}) ([]fleet.AuditEntry, error) {
			entries, err := s.Service.Audit(ctx, by, operations.AuditQuery{Before: in.Before, Actor: in.Actor, Action: in.Action, Object: in.Object, Limit: in.Limit})
			return list(entries), err
		})
	events := operation(operations.Read, http.MethodGet, "/events", "watch-events", "Stream what happens, as server-sent events", tag("service"))
	events.Metadata[metaStream] = true
	sse.Register(s.api, events, map[string]any{"event": fleet.Event{}, "ping": Ping{}}, func(ctx context.Context, in *struct {
		Campaign string `query:"campaign" doc:"Only what concerns this campaign"`
	}, send sse.Sender) {
		s.stream(ctx, in.Campaign, send)
	})
}

// stream sends events until the client is gone or its token is not valid any more.
func (s *server) stream(ctx context.Context, campaign string, send sse.Sender) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events := make(chan fleet.Event, 64)
	failed := make(chan error, 1)
	go func() {
		failed <- s.Service.Events(ctx, caller(ctx), campaign, func(e fleet.Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	ping := time.NewTicker(s.PingPause)
	defer ping.Stop()
	err := send.Data(Ping{Time: time.Now()}) // the client sees that it is connected
	for err == nil {
		select {
		case e := <-events:
			err = send.Data(e)
		case now := <-ping.C:
			token, _ := ctx.Value(tokenKey{}).(string)
			by, tokenErr := s.Access.Token(ctx, token, caller(ctx).From)
			if tokenErr != nil || by.Check(operations.Read) != nil {
				return
			}
			err = send.Data(Ping{Time: now})
		case err = <-failed:
			if err != nil && !errors.Is(err, context.Canceled) {
				s.internal("watch-events", err)
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// writeProblem answers with problem details where the library is not involved.
func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(huma.NewError(status, detail)) // the client is gone
}
