package ui

import (
	"net/http"

	"example.com/iad/fleet/operations"
)

type overviewData struct {
	Overview  *operations.Overview
	Campaigns []operations.CampaignRow // those that have not ended
}

func (p *page) overview() error {
	o, err := p.Service.Overview(p.r.Context(), p.by)
	if err != nil {
		return err
	}
	rows, err := p.Service.Campaigns(p.r.Context(), p.by)
	if err != nil {
		return err
	}
	data := overviewData{Overview: o}
	for _, row := range rows {
		if !row.Campaign.State.Final() {
			data.Campaigns = append(data.Campaigns, row)
		}
	}
	p.show(http.StatusOK, "overview", "Overview", data)
	return nil
}
