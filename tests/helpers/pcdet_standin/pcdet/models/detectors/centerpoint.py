from .second_net import SECONDNet


class CenterPoint(SECONDNet):
    def post_processing(self, batch_dict):
        found, recall = batch_dict['final_box_dicts'], {}
        thresholds = self.model_cfg.POST_PROCESSING.RECALL_THRESH_LIST
        for index, frame in enumerate(found):
            recall = self.generate_recall_record(
                frame['pred_boxes'], recall, index, batch_dict, thresholds
            )
        return found, recall
