-- Bring the capture functions up to date. Run it when a fingerprint of sources.sql changed, then read sources.sql again.
select rowcast.refresh() as made
