//! What a build says and keeps of the steps that it executes.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use super::{
    History,
    inquiry::{Inquiry, Standing},
    note,
};
use crate::{
    cache::EntryId,
    engine::{
        Session,
        attempt::Attempt,
        session::{blocking, is_older},
    },
    event::{BuildEvent, StepId},
    graph::VertexId,
};

impl Attempt {
    /// Says that a step is about to be executed, and why if that is wanted.
    pub(in crate::engine) async fn announce_run(&self, id: VertexId) {
        let session = Arc::clone(&self.session);
        let why = match session.engine.options.explain {
            true => blocking(move || Ok(session.why(id))).await.ok(),
            false => None,
        };
        self.announce_because(id, why);
    }

    /// Says that a step is under way.
    pub(in crate::engine) fn announce(&self, id: VertexId) {
        self.announce_because(id, None);
    }

    fn announce_because(&self, id: VertexId, why: Option<String>) {
        let vertex = self.session.graph.vertex(id);
        self.session.engine.events.send(BuildEvent::StepStarted {
            step: StepId(id.0),
            name: vertex.name.clone(),
            target: vertex.target.to_string(),
            why,
        });
    }

    /// Keeps beside a new entry what its explanation will need, while other things go on.
    pub(in crate::engine) fn keep_note(&self, id: VertexId, entry: EntryId) {
        let session = Arc::clone(&self.session);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn_blocking(move || {
            let Session {
                engine,
                graph,
                keys,
                contexts,
                ..
            } = &*session;
            // Without it a later explanation has less to say.
            if let Err(error) = note::keep(&engine.store, graph, keys, contexts, id, entry) {
                tracing::debug!(%entry, %error, "no note was kept");
            }
        });
    }
}

impl Session {
    /// Why the step is executed, in one line.
    fn why(&self, id: VertexId) -> String {
        let history = self.history.get_or_init(|| {
            // What is wrong with the index is told elsewhere.
            History::load(&self.engine.store).unwrap_or_default()
        });
        let ran = self.executed_vertices();
        let steps = (0..self.graph.vertices.len()).map(VertexId);
        let missed: HashSet<VertexId> = steps
            .filter(|id| self.graph.vertex(*id).op.is_step())
            .filter(|id| ran.contains(id) || self.definition_hit(*id).is_none())
            .collect();
        let inquiry = Inquiry {
            graph: &self.graph,
            keys: &self.keys,
            contexts: &self.contexts,
            store: &self.engine.store,
            history,
            scopes: &self.engine.options.scopes,
            missed: &missed,
            commit_of: None,
        };
        let miss = inquiry.miss(id, self.standing(id));
        let why = miss.redacted(&self.engine.redactor).to_string();
        self.engine.redactor.redact(&why).into_owned()
    }

    fn standing(&self, id: VertexId) -> Standing {
        let hit = self.hits.get(&self.keys.key(id));
        match hit {
            _ if self.graph.vertex(id).no_cache => Standing::Policy,
            _ if self.is_unforeseen(id) => Standing::Unforeseen,
            None => Standing::Nothing,
            Some(hit) if is_older(hit, self.graph.vertex(id).max_age) => Standing::Policy,
            Some(hit) if !self.trusts(id) || !self.bytes.at_hand(hit.layer.as_ref()) => {
                Standing::Lost
            }
            Some(_) => Standing::OtherParent,
        }
    }
}
